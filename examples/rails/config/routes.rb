# frozen_string_literal: true

Rails.application.routes.draw do
  post "/spectrogram", to: "spectrograms#draw"
  post "/sounds", to: "spectrograms#make"
end
