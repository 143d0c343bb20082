# What a slow or stalled Redis does to the VM's own files, which wait for the same dirty I/O
# schedulers as calls on redis: (see bindings/elixir/README.md). Needs redis-server. In
# bindings/elixir:
#   MIX_ENV=prod elixir --erl "+SDio 64" -S mix run ../../benches/elixir/slow_redis.exs delay 20 64
#     64 processes read sessions for 6 s from a server that responds in 20 ms (for 300 ms add deadline=5s)
#   MIX_ENV=prod mix run ../../benches/elixir/slow_redis.exs stall 3000 50 deadline=500ms
#     50 processes, from a server that is stopped for 3000 ms
alias SessionServerStore.Native

[mode, ms, processes | options] = System.argv()
[ms, processes] = Enum.map([ms, processes], &String.to_integer/1)
directory = Path.join(System.tmp_dir!(), "sss-slow-#{System.pid()}")
File.mkdir_p!(directory)

free_port = fn ->
  {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
  {:ok, port} = :inet.port(socket)
  :gen_tcp.close(socket)
  port
end

port = free_port.()
config = Path.join(directory, "redis.conf")
File.write!(config, "bind 127.0.0.1\nport #{port}\nsave \"\"\ndir #{directory}\nloglevel warning\n")
redis = Port.open({:spawn_executable, System.find_executable("redis-server")}, [:binary, args: [config]])
{:os_pid, redis_pid} = Port.info(redis, :os_pid)
Process.sleep(500)

# Forwards all bytes, replies with a delay of `ms`.
defmodule Proxy do
  def start(to, ms) do
    {:ok, listening} = :gen_tcp.listen(0, [:binary, active: false, nodelay: true, backlog: 128, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listening)
    spawn_link(fn -> accept(listening, to, ms) end)
    port
  end

  defp accept(listening, to, ms) do
    {:ok, client} = :gen_tcp.accept(listening)
    {:ok, server} = :gen_tcp.connect({127, 0, 0, 1}, to, [:binary, active: false, nodelay: true])
    spawn(fn -> pass(client, server, 0) end)
    spawn(fn -> pass(server, client, ms) end)
    accept(listening, to, ms)
  end

  defp pass(from, to, ms) do
    case :gen_tcp.recv(from, 0) do
      {:ok, bytes} ->
        Process.sleep(ms)
        :gen_tcp.send(to, bytes)
        pass(from, to, ms)

      _ ->
        :gen_tcp.close(to)
    end
  end
end

port = if mode == "delay", do: Proxy.start(port, ms), else: port
{:ok, handle} = Native.open("redis://127.0.0.1:#{port}?" <> Enum.join(["pool=#{processes}" | options], "&"))
{:ok, {sid, _}} = Native.create_dirty(handle, "hello", {:keep, :keep, :keep, 0, nil, false})

calls = :counters.new(1, [:write_concurrency])
until = System.monotonic_time(:millisecond) + 6000

call = fn call ->
  if System.monotonic_time(:millisecond) < until do
    Native.get_dirty(handle, sid, false)
    :counters.add(calls, 1, 1)
    call.(call)
  end
end

workers = for _ <- 1..processes, do: Task.async(fn -> call.(call) end)
Process.sleep(1000)

if mode == "stall" do
  spawn(fn ->
    System.cmd("kill", ["-STOP", "#{redis_pid}"])
    Process.sleep(ms)
    System.cmd("kill", ["-CONT", "#{redis_pid}"])
  end)
end

file = Path.join(directory, "file")

look = fn look, times ->
  if System.monotonic_time(:millisecond) < until - 500 do
    {us, _} =
      :timer.tc(fn ->
        File.write!(file, "hello")
        File.read!(file)
      end)

    Process.sleep(5)
    look.(look, [us | times])
  else
    Enum.sort(times)
  end
end

times = look.(look, [])
Task.await_many(workers, :infinity)
[median, longest] = for at <- [div(length(times), 2), -1], do: Float.round(Enum.at(times, at) / 1000, 1)
schedulers = :erlang.system_info(:dirty_io_schedulers)

IO.puts(
  "#{mode} #{ms} ms, #{processes} processes, #{schedulers} dirty I/O schedulers: #{div(:counters.get(calls, 1), 6)} " <>
    "calls a second; a write and a read of a file #{median} ms (median), #{longest} ms at most"
)

System.cmd("kill", ["-KILL", "#{redis_pid}"])
File.rm_rf!(directory)
