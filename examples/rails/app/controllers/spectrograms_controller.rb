# frozen_string_literal: true

# An API: other sites may not send a session's cookie here, so there is no CSRF token to check.
class SpectrogramsController < ActionController::API
  MAX_UPLOAD_BYTES = 15 * 1024 * 1024

  rescue_from Specgan::Error do |err|
    render json: { success: false, message: err.message, error: err.error }, status: err.status
  end

  # POST /spectrogram, multipart field audio_file
  def draw
    upload = params[:audio_file]
    unless upload.is_a?(ActionDispatch::Http::UploadedFile)
      raise Specgan::Error.new(400, "no_file", "Send the sound as the multipart field audio_file")
    end
    if upload.size > MAX_UPLOAD_BYTES
      raise Specgan::Error.new(413, "too_large", "The upload is larger than #{MAX_UPLOAD_BYTES / 1024 / 1024} MB")
    end

    url = Specgan.from_env.draw_spectrogram(upload.path)
    render json: { success: true, message: "Spectrogram drawn", spectrogram_url: url }
  ensure
    upload.tempfile.close! if upload.is_a?(ActionDispatch::Http::UploadedFile) # now, not when memory is tidied up
  end

  # POST /sounds, JSON {"class": "kick", "n": 2, "seed": 0}
  def make
    sounds = Specgan.from_env.make_sounds(params[:class].to_s, n: params.fetch(:n, 1).to_i, seed: params[:seed].to_i)
    render json: { success: true, message: "Sounds made", sounds: sounds }
  end
end
