# frozen_string_literal: true

require "fileutils"
require "json"
require "net/http"
require "timeout"
require "tmpdir"

# specgan through its service where `url` is set, else through its command line. Needs no framework.
class Specgan
  # What the caller did wrong, or what is wrong here: `status` of the answer, `error` in one word.
  class Error < StandardError
    attr_reader :status, :error

    def initialize(status, error, message)
      super(message)
      @status = status
      @error = error
    end
  end

  def self.from_env
    set = ENV.to_h.reject { |_, value| value.empty? }
    new(
      url: set["SPECGAN_URL"],
      public_url: set["SPECGAN_PUBLIC_URL"],
      folder: set["SPECGAN_DIR"],
      python: set.fetch("SPECGAN_PYTHON", "python"),
      time_limit_s: set.fetch("TIME_LIMIT_S", "60").to_f
    )
  end

  # url: of the service, e.g. http://127.0.0.1:8000; public_url: the same as browsers reach it; folder: specgan's
  # checkout, where preprocess.py stands; python: e.g. /srv/specgan/.venv/bin/python
  def initialize(url: nil, public_url: nil, folder: nil, python: "python", time_limit_s: 60)
    @url = url&.chomp("/")
    @public_url = public_url&.chomp("/") || @url
    @folder = folder
    @python = python
    @time_limit_s = time_limit_s
  end

  # Draws the spectrogram of the sound at `path`. Returns an address for <img src>: of the service's file, which it
  # keeps for some minutes, or the PNG itself (data:).
  def draw_spectrogram(path)
    return draw_by_command(path) unless @url

    File.open(path, "rb") do |file|
      request = Net::HTTP::Post.new("/api/audio/generate-spectrogram")
      request.set_form([["audio_file", file, { filename: "upload" }]], "multipart/form-data")
      @public_url + ask(request).fetch("spectrogram_url")
    end
  end

  # Makes `n` sounds of a class, with the seeds from `seed` on: hashes of class, seed, audio_url, spectrogram_url.
  def make_sounds(name, n: 1, seed: 0)
    raise Error.new(501, "no_service", "New sounds need the service: set SPECGAN_URL") unless @url

    request = Net::HTTP::Post.new("/api/generate", "Content-Type" => "application/json")
    request.body = JSON.generate(class: name, n: n, seed: seed)
    ask(request).fetch("sounds").map do |sound|
      sound.merge(sound.slice("audio_url", "spectrogram_url").transform_values { |path| @public_url + path })
    end
  end

  private

  def ask(request)
    uri = URI(@url)
    settings = { use_ssl: uri.scheme == "https", open_timeout: @time_limit_s, read_timeout: @time_limit_s, max_retries: 0 }
    answer = Net::HTTP.start(uri.host, uri.port, **settings) { |http| http.request(request) }
    content = JSON.parse(answer.body)
    return content if answer.is_a?(Net::HTTPSuccess)

    raise Error.new(answer.code.to_i, content["error"], content["message"])
  rescue Net::OpenTimeout, Net::ReadTimeout
    raise too_slow
  rescue SystemCallError, SocketError, IOError, JSON::ParserError => err
    raise Error.new(502, "no_answer", "The specgan service does not answer: #{err.message}")
  end

  def draw_by_command(path)
    raise Error.new(500, "not_set_up", "Set SPECGAN_URL, or SPECGAN_DIR to specgan's folder") unless @folder

    Dir.mktmpdir("spectrogram-") do |folder| # removed at the end, whatever happens
      # A list of arguments, no shell: nothing in a name can become a command. The link gives the sound a name of ours,
      # because some characters mean something in specgan's settings.
      input, output = File.join(folder, "upload"), File.join(folder, "picture.png")
      File.symlink(File.realpath(path), input)
      errors = File.join(folder, "errors.txt")
      status = run(@python, "preprocess.py", "task=render", "input=#{input}", "output=#{output}",
                   "task.width_px=1024", "task.height_px=256", errors: errors)
      raise fault(File.read(errors), input) unless status.success?

      "data:image/png;base64,#{[File.binread(output)].pack('m0')}"
    end
  end

  def run(*arguments, errors:)
    pid = Process.spawn(*arguments, chdir: @folder, in: File::NULL, out: File::NULL, err: errors)
    begin
      Timeout.timeout(@time_limit_s) { Process.wait2(pid).last }
    rescue Timeout::Error
      Process.kill(:KILL, pid)
      Process.wait(pid)
      raise too_slow
    end
  rescue Errno::ENOENT
    raise Error.new(500, "not_drawn", "#{@python} does not start; check SPECGAN_PYTHON and SPECGAN_DIR")
  end

  def fault(errors, input)
    message = errors[/^.*AudioError: (.*)$/, 1]
    return Error.new(400, "not_audio", message.gsub(input, "The upload")) if message

    warn errors # for whoever runs the server, not for its visitors
    Error.new(500, "not_drawn", "The picture could not be drawn; the server's log says why")
  end

  def too_slow
    Error.new(504, "time_limit", "That took longer than #{@time_limit_s} s; try a shorter sound")
  end
end
