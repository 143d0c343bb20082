# A browser for one LiveView: HTTP with cookies, and the LiveView's messages over a websocket
# (RFC 6455), for the tests tagged :phoenix. Knows no more of the protocol than they need.
defmodule LiveClient do
  @moduledoc false
  @compile {:no_warn_undefined, Jason}

  defstruct [:port, :socket, :topic, :join_ref, buffer: ""]

  @timeout_ms 30_000

  ## HTTP

  @doc "A page, with the cookies of `browser`: its status, body, and the browser afterwards."
  def get(port, path, browser \\ %{}, headers \\ "") do
    head = "GET #{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    socket = request(port, [head, headers, cookies(browser)])
    {head, rest} = read_head(socket, "")
    body = read_to_end(socket, rest)
    [status_line | lines] = String.split(head, "\r\n")
    {status_line |> String.split(" ") |> Enum.at(1) |> String.to_integer(), body, take_cookies(lines, browser)}
  end

  defp take_cookies(lines, browser) do
    for line <- lines,
        [name, value] <- [String.split(line, ": ", parts: 2)],
        String.downcase(name) == "set-cookie",
        reduce: browser do
      browser ->
        [key, value] = value |> String.split(";") |> hd() |> String.split("=", parts: 2)
        if value == "" or line =~ "max-age=0", do: Map.delete(browser, key), else: Map.put(browser, key, value)
    end
  end

  ## LiveView

  @doc "Opens the page and joins its LiveView. `{:ok, client}`, or `{:error, response}` of the join."
  def join(port, path, browser) do
    {200, page, browser} = get(port, path, browser)
    [_, id] = Regex.run(~r/id="(phx-[^"]+)"/, page)

    [session, static] =
      for name <- ~w(session static), do: Regex.run(~r/data-phx-#{name}="([^"]+)"/, page) |> Enum.at(1)

    [_, csrf] = Regex.run(~r/name="csrf-token" content="([^"]+)"/, page)
    client = %__MODULE__{port: port, topic: "lv:#{id}", join_ref: "1", socket: connect(port, csrf, browser)}

    payload = %{
      url: "http://localhost#{path}",
      params: %{_csrf_token: csrf, _mounts: 0},
      session: session,
      static: static
    }

    send_message(client, "1", "phx_join", payload)

    case next(client, &match?([_, "1", _, "phx_reply", _], &1)) do
      {[_, _, _, _, %{"status" => "ok"}], client} -> {:ok, client}
      {[_, _, _, _, %{"response" => response}], _client} -> {:error, response}
      {:closed, _client} -> {:error, :closed}
    end
  end

  @doc "Clicks, and waits for the reply. `{:ok, client}`, `{:redirected, path}` or `:closed`."
  def click(client, event, extra \\ %{}) do
    send_message(client, "2", "event", Map.merge(%{type: "click", event: event, value: %{}}, extra))
    result(next(client, &(match?([_, "2", _, "phx_reply", _], &1) or match?([_, _, _, "redirect", _], &1))))
  end

  @doc "Waits until the server redirects the LiveView or closes the socket."
  def wait_for_end(client), do: result(next(client, &match?([_, _, _, "redirect", _], &1)))

  defp result({:closed, _client}), do: :closed
  defp result({[_, _, _, "redirect", %{"to" => path}], _client}), do: {:redirected, path}
  defp result({[_, _, _, _, %{"response" => %{"redirect" => %{"to" => path}}}], _client}), do: {:redirected, path}
  defp result({[_, _, _, _, %{"status" => "ok"}], client}), do: {:ok, client}

  defp next(client, wanted?) do
    case read_frame(client.socket, client.buffer) do
      {:text, text, rest} ->
        message = Jason.decode!(text)
        client = %{client | buffer: rest}
        if wanted?.(message), do: {message, client}, else: next(client, wanted?)

      :closed ->
        {:closed, client}
    end
  end

  defp send_message(client, ref, event, payload) do
    message = Jason.encode!([client.join_ref, ref, client.topic, event, payload])
    :ok = :gen_tcp.send(client.socket, frame(message))
  end

  ## Websocket

  defp connect(port, csrf, browser) do
    path = "/live/websocket?" <> URI.encode_query(_csrf_token: csrf, vsn: "2.0.0")

    socket =
      request(port, [
        "GET #{path} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n",
        "sec-websocket-version: 13\r\nsec-websocket-key: #{Base.encode64(:crypto.strong_rand_bytes(16))}\r\n",
        cookies(browser)
      ])

    {"HTTP/1.1 101" <> _, ""} = read_head(socket, "")
    socket
  end

  # Clients mask their frames.
  defp frame(text) do
    mask = :crypto.strong_rand_bytes(4)
    size = byte_size(text)
    length = if size < 126, do: <<1::1, size::7>>, else: <<1::1, 126::7, size::16>>
    pad = :binary.copy(mask, div(size, 4) + 1) |> binary_part(0, size)
    [<<1::1, 0::3, 1::4>>, length, mask, :crypto.exor(text, pad)]
  end

  defp read_frame(socket, buffer) do
    case buffer do
      <<1::1, _::3, 1::4, 0::1, 127::7, size::64, text::binary-size(size), rest::binary>> -> {:text, text, rest}
      <<1::1, _::3, 1::4, 0::1, 126::7, size::16, text::binary-size(size), rest::binary>> -> {:text, text, rest}
      <<1::1, _::3, 1::4, 0::1, size::7, text::binary-size(size), rest::binary>> when size < 126 -> {:text, text, rest}
      <<1::1, _::3, 8::4, _::binary>> -> :closed
      _part -> read_more(socket, buffer)
    end
  end

  defp read_more(socket, buffer) do
    case :gen_tcp.recv(socket, 0, @timeout_ms) do
      {:ok, bytes} -> read_frame(socket, buffer <> bytes)
      {:error, :closed} -> :closed
    end
  end

  ## TCP

  defp request(port, head) do
    {:ok, socket} = :gen_tcp.connect(~c"127.0.0.1", port, [:binary, active: false], @timeout_ms)
    :ok = :gen_tcp.send(socket, [head, "\r\n"])
    socket
  end

  defp cookies(browser) when map_size(browser) == 0, do: ""
  defp cookies(browser), do: "cookie: #{Enum.map_join(browser, "; ", fn {name, value} -> "#{name}=#{value}" end)}\r\n"

  defp read_head(socket, read) do
    case String.split(read, "\r\n\r\n", parts: 2) do
      [head, rest] ->
        {head, rest}

      [_part] ->
        {:ok, bytes} = :gen_tcp.recv(socket, 0, @timeout_ms)
        read_head(socket, read <> bytes)
    end
  end

  defp read_to_end(socket, read) do
    case :gen_tcp.recv(socket, 0, @timeout_ms) do
      {:ok, bytes} -> read_to_end(socket, read <> bytes)
      {:error, :closed} -> read
    end
  end
end
