# Removes expired sessions on a timer, a bounded number per step, so that it never keeps a scheduler or a lock for long.
# Holds nothing: it may die at any time.
defmodule SessionServerStore.Sweeper do
  @moduledoc false
  use GenServer

  alias SessionServerStore.{Duration, Store}

  require Logger

  @step 1_000

  @spec start_link(Duration.t()) :: GenServer.on_start()
  def start_link(interval) do
    case Duration.to_ms(interval) do
      {:ok, ms} when ms > 0 ->
        GenServer.start_link(__MODULE__, if(interval == :infinity, do: :infinity, else: ms), name: __MODULE__)

      _ ->
        raise ArgumentError,
              ":sweep_interval must be a number of seconds above 0, {milliseconds, :millisecond} or :infinity, " <>
                "got: #{inspect(interval)}"
    end
  end

  @impl true
  def init(interval), do: {:ok, interval, {:continue, :wait}}

  @impl true
  def handle_continue(:wait, interval), do: wait(interval)

  @impl true
  def handle_info(:sweep, interval) do
    case Store.sweep(@step) do
      {:ok, @step} ->
        # There may be more; others come first.
        send(self(), :sweep)
        {:noreply, interval}

      {:ok, _all} ->
        wait(interval)

      {:error, error} ->
        Logger.warning("could not sweep expired sessions: #{Exception.message(error)}")
        wait(interval)
    end
  end

  defp wait(:infinity), do: {:noreply, :infinity, :hibernate}

  defp wait(interval) do
    Process.send_after(self(), :sweep, interval)
    {:noreply, interval}
  end
end
