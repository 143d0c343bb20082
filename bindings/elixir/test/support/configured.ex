# The application as a test wants it configured. Afterwards it is as it was.
defmodule Configured do
  @moduledoc false
  import ExUnit.{Callbacks, CaptureLog}

  @app :session_server_store

  @doc "Starts the application anew with this environment, until the test is over. What starting it answers."
  def configured(env) do
    as_it_was()
    restart(env)
  end

  @doc "When the test is over the application runs, and has the environment that it has now."
  def as_it_was do
    before = Application.get_all_env(@app)
    on_exit(fn -> :ok = restart(before) end)
  end

  @doc "Starts it anew, as it is or with this environment."
  def restart(env \\ Application.get_all_env(@app)) do
    test = self()

    capture_log(fn ->
      Application.stop(@app)
      Application.put_all_env([{@app, env}])
      send(test, {:started, Application.start(@app)})
    end)

    receive do
      {:started, result} -> result
    end
  end
end
