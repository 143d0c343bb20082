# Telemetry events. All other tests run without the package too, which shows that it is not needed.
defmodule SessionServerStore.TelemetryTest do
  use ExUnit.Case, async: true
  @moduletag :telemetry
  @compile {:no_warn_undefined, :telemetry}

  alias SessionServerStore.Store

  setup context do
    name = Module.concat(__MODULE__, "Line#{context.line}")
    start_supervised!({SessionServerStore, name: name, url: "memory:?clock=manual&max_sessions=2"})
    operations = ~w(create get put touch renew delete ref list revoke sweep)a
    events = [[:session_server_store, :stats] | for(op <- operations, do: [:session_server_store, op, :stop])]
    attach(name, events)
    {:ok, name: name}
  end

  # Sends the events of one store to the test.
  defp attach(name, events) do
    :ok = :telemetry.attach_many(name, events, &__MODULE__.forward/4, {name, self()})
    on_exit(fn -> :telemetry.detach(name) end)
  end

  def forward(event, measurements, metadata, {name, test}) do
    if metadata.store == name, do: send(test, {:event, Enum.at(event, 1), measurements, metadata})
  end

  test "each operation sends its event", %{name: name} do
    secret = %{"secret" => "payload"}
    {:ok, sid, _} = Store.create(name, secret, principal: "principal")
    assert_received {:event, :create, %{duration: duration}, %{engine: :memory, result: :ok}}
    assert is_integer(duration) and duration >= 0

    for {operation, call} <- [
          get: fn -> Store.get(name, sid) end,
          get: fn -> Store.peek(name, sid) end,
          put: fn -> Store.put(name, sid, secret) end,
          touch: fn -> Store.touch(name, sid) end,
          ref: fn -> Store.ref(name, sid) end,
          list: fn -> Store.list(name, "principal") end
        ] do
      assert {:ok, _} = call.()
      assert_received {:event, ^operation, %{duration: _}, %{result: :ok}}
    end

    {:ok, sid, _} = Store.renew(name, sid)
    assert_received {:event, :renew, _, %{result: :ok}}
    {:ok, 1} = Store.revoke(name, "principal")
    assert_received {:event, :revoke, %{count: 1}, %{result: :ok}}
    {:error, :not_found} = Store.delete(name, sid)
    assert_received {:event, :delete, _, %{result: :not_found}}
    {:ok, 0} = Store.sweep(name)
    assert_received {:event, :sweep, %{count: 0}, %{result: :ok}}
  end

  test "result is the reason of a failure", %{name: name} do
    {:ok, sid, _} = Store.create(name, 1)
    {:ok, _, _} = Store.create(name, 2)
    {:error, %{reason: :full}} = Store.create(name, 3)
    assert_received {:event, :create, _, %{result: :full}}
    {:error, %{reason: :conflict}} = Store.put_if(name, sid, 7, 1)
    assert_received {:event, :put, _, %{result: :conflict}}
  end

  test "events hold no id, reference, principal or data", %{name: name} do
    {:ok, sid, _} = Store.create(name, "the payload", principal: "the principal")
    {:ok, ref} = Store.ref(name, sid)
    {:ok, _} = Store.get(name, sid)
    {:ok, new_sid, _} = Store.renew(name, sid, data: "the payload")
    {:ok, [_]} = Store.list(name, "the principal")
    {:ok, 1} = Store.revoke(name, "the principal")
    {:messages, messages} = Process.info(self(), :messages)
    assert length(messages) >= 6

    for message <- messages, secret <- [sid, new_sid, ref, "the payload", "the principal"] do
      refute :binary.match(:erlang.term_to_binary(message), secret) != :nomatch
    end
  end

  test "stats are sent on a timer", %{name: name} do
    other = Module.concat(name, Other)
    attach(other, [[:session_server_store, :stats]])
    start_supervised!({SessionServerStore, name: other, stats_interval: {10, :millisecond}})
    {:ok, _, _} = Store.create(other, 1)
    assert_receive {:event, :stats, %{sessions: 1, bytes: _, created: 1}, %{engine: :memory}}, 30_000
  end
end
