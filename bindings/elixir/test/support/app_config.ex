# The application as a test configures it. Afterwards it runs again as before.
defmodule AppConfig do
  @moduledoc false
  import ExUnit.{Callbacks, CaptureLog}

  @app :session_server_store

  @doc "Restarts the application with this environment until the test ends. Returns what the start returned."
  def configure(env) do
    restore_on_exit()
    restart(env)
  end

  @doc "Restarts the application with its current environment when the test ends."
  def restore_on_exit do
    before = Application.get_all_env(@app)
    on_exit(fn -> :ok = restart(before) end)
  end

  @doc "Restarts the application, with this environment if one is given. Returns what the start returned."
  def restart(env \\ Application.get_all_env(@app)) do
    test = self()

    capture_log(fn ->
      Application.stop(@app)
      for {key, _value} <- Application.get_all_env(@app), do: Application.delete_env(@app, key)
      Application.put_all_env([{@app, env}])
      send(test, {:started, Application.start(@app)})
    end)

    receive do
      {:started, result} -> result
    end
  end
end
