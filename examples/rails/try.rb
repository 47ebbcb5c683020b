# frozen_string_literal: true

# The service object without Rails: ruby try.rb draw song.mp3, ruby try.rb make kick 2

require_relative "app/services/specgan"

begin
  specgan = Specgan.from_env
  answer = { success: true }
  case ARGV[0]
  when "draw" then answer[:spectrogram_url] = specgan.draw_spectrogram(ARGV.fetch(1))
  when "make"
    answer[:sounds] = specgan.make_sounds(ARGV.fetch(1), n: ARGV.fetch(2, 1).to_i, seed: ARGV.fetch(3, 0).to_i)
  else abort "draw FILE, or make CLASS [N [SEED]]"
  end
rescue Specgan::Error => err
  answer = { success: false, message: err.message, error: err.error }
end
puts JSON.pretty_generate(answer)
exit answer[:success]
