# Removes expired sessions on a timer, a bounded number in each step, so that no step blocks the
# store for long. Holds no state: it can die at any time.
defmodule SessionServerStore.Sweeper do
  @moduledoc false
  use GenServer

  alias SessionServerStore.Store

  require Logger

  @sessions_per_step 1_000
  # The VM refuses timers of more than some 290 years.
  @max_timer_ms 4_294_967_295

  @spec start_link(interval_ms :: pos_integer | :infinity) :: GenServer.on_start()
  def start_link(interval_ms), do: GenServer.start_link(__MODULE__, interval_ms, name: __MODULE__)

  @impl true
  def init(interval_ms), do: {:ok, interval_ms, {:continue, :wait}}

  @impl true
  def handle_continue(:wait, interval_ms), do: wait(interval_ms)

  @impl true
  def handle_info(:sweep, interval_ms) do
    case Store.sweep(@sessions_per_step) do
      {:ok, @sessions_per_step} ->
        # There may be more. Other messages are handled first.
        send(self(), :sweep)
        {:noreply, interval_ms}

      {:ok, _all} ->
        wait(interval_ms)

      {:error, error} ->
        Logger.warning("expired sessions could not be removed: #{Exception.message(error)}")
        wait(interval_ms)
    end
  end

  defp wait(:infinity), do: {:noreply, :infinity, :hibernate}

  defp wait(interval_ms) do
    Process.send_after(self(), :sweep, min(interval_ms, @max_timer_ms))
    {:noreply, interval_ms}
  end
end
