# Logins, reauthentication, devices and references: by SessionServerStore.Store, and by the callbacks
# as Plug calls them.
defmodule SessionServerStore.LoginTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.{Error, Store}

  @data %{"a" => 1}

  setup context do
    name = Module.concat(__MODULE__, "Line#{context.line}")
    start_supervised!({SessionServerStore, name: name, url: "memory:?clock=manual&timeout=3h&idle_timeout=infinity"})
    {:ok, name: name}
  end

  defp advance(name, duration), do: :ok = Store.advance_clock(name, duration)
  defp minutes(n), do: n * 60_000

  # What Plug.Session does at a renewal.
  defp renew(sid, data, config, private \\ %{}) do
    conn = %{private: Map.put(private, :plug_session_info, :renew), req_headers: [{"cookie", "sid=#{sid}"}]}
    {^sid, _} = SessionServerStore.get(conn, sid, config)
    :ok = SessionServerStore.delete(conn, sid, config)
    SessionServerStore.put(conn, nil, data, config)
  end

  describe "Store" do
    test "login restarts both timeouts", %{name: name} do
      {:ok, visitor, created} = Store.create(name, @data)
      assert {created.authenticated_ms, created.timeout_ms, created.idle_timeout_ms} == {nil, minutes(180), :infinity}
      advance(name, {175, :minute})
      {:ok, alice, login} = Store.renew(name, visitor, principal: "alice")
      assert login.created_ms == created.created_ms
      assert login.authenticated_ms == created.created_ms + minutes(175)
      assert login.expires_ms == created.created_ms + minutes(175 + 180)
      advance(name, {179, :minute})
      assert {:ok, %{data: @data}} = Store.get(name, alice)
    end

    test "rotation keeps the deadline", %{name: name} do
      {:ok, sid, created} = Store.create(name, @data, principal: 42)
      assert created.authenticated_ms == created.created_ms
      advance(name, {175, :minute})
      {:ok, sid, rotated} = Store.renew(name, sid, principal: "42")
      assert {rotated.authenticated_ms, rotated.expires_ms} == {created.authenticated_ms, created.expires_ms}
      advance(name, {5, :minute})
      assert Store.get(name, sid) == {:error, :not_found}
    end

    test "reauthentication restarts both timeouts", %{name: name} do
      {:ok, sid, created} = Store.create(name, @data, principal: "alice")
      advance(name, {175, :minute})
      {:ok, _, session} = Store.renew(name, sid, reauthenticated: true)
      assert session.authenticated_ms == created.created_ms + minutes(175)
      assert session.expires_ms == session.authenticated_ms + minutes(180)
    end

    test "grace with a login is refused", %{name: name} do
      {:ok, sid, _} = Store.create(name, @data)

      for opts <- [[principal: "alice"], [reauthenticated: true]] do
        assert {:error, %Error{reason: :invalid, message: message}} = Store.renew(name, sid, [grace: 5] ++ opts)
        assert message =~ "grace"
        assert {:ok, _} = Store.get(name, sid)
      end
    end

    test "timeouts of its own, and the store's again", %{name: name} do
      {:ok, sid, session} = Store.create(name, @data, timeout: 60, idle_timeout: 30)
      assert {session.timeout_ms, session.idle_timeout_ms} == {60_000, 30_000}
      {:ok, session} = Store.put(name, sid, @data, timeout: :inherit, idle_timeout: :inherit)
      assert {session.timeout_ms, session.idle_timeout_ms} == {minutes(180), :infinity}
    end

    test "label stays with its principal", %{name: name} do
      labels = fn principal -> name |> Store.list!(principal) |> Enum.map(& &1.label) end
      {:ok, sid, _} = Store.create(name, @data, principal: "alice", label: "Firefox on Linux")
      assert labels.("alice") == ["Firefox on Linux"]
      {:ok, _} = Store.put(name, sid, @data)
      {:ok, sid, _} = Store.renew(name, sid, principal: "alice")
      assert labels.("alice") == ["Firefox on Linux"]
      {:ok, _} = Store.put(name, sid, @data, principal: "alice", label: "renamed")
      assert labels.("alice") == ["renamed"]
      {:ok, sid, _} = Store.renew(name, sid, principal: "bob")
      assert labels.("bob") == [nil]
      {:ok, _} = Store.put(name, sid, @data, principal: "bob", label: "again")
      {:ok, _} = Store.put(name, sid, @data, principal: "bob", label: "")
      assert labels.("bob") == [nil]
    end

    test "wrong label is refused", %{name: name} do
      for opts <- [[label: "without a principal"], [principal: "alice", label: String.duplicate("x", 256)]] do
        assert {:error, %Error{reason: :invalid, message: message}} = Store.create(name, @data, opts)
        assert message =~ "label"
      end

      assert {:ok, _, _} = Store.create(name, @data, principal: "alice", label: String.duplicate("x", 255))
    end

    test "touch_ref slides, peek does not", %{name: name} do
      {:ok, sid, _} = Store.create(name, @data, idle_timeout: {10, :minute})
      {:ok, ref} = Store.ref(name, sid)
      advance(name, {9, :minute})
      assert {:ok, %{data: nil}} = Store.touch_ref(name, ref)
      advance(name, {9, :minute})
      assert {:ok, _} = Store.touch_ref(name, ref, peek: true)
      advance(name, {1, :minute})
      assert Store.touch_ref(name, ref) == {:error, :not_found}
    end

    test "reference ends with its id", %{name: name} do
      {:ok, sid, _} = Store.create(name, @data)
      {:ok, ref} = Store.ref(name, sid)
      {:ok, _, _} = Store.renew(name, sid)
      assert Store.touch_ref(name, ref) == {:error, :not_found}
      assert Store.delete_ref(name, ref) == {:error, :not_found}
    end

    test "delete_ref ends only the principal's session", %{name: name} do
      {:ok, sid, _} = Store.create(name, @data, principal: "alice")
      {:ok, ref} = Store.ref(name, sid)
      assert Store.delete_ref(name, ref, principal: "bob") == {:error, :not_found}
      assert {:ok, _} = Store.get(name, sid)
      assert Store.delete_ref(name, ref, principal: "alice") == :ok
      assert Store.get(name, sid) == {:error, :not_found}
    end

    test "revoke_all ends every session", %{name: name} do
      {:ok, one, _} = Store.create(name, @data, principal: "alice")
      {:ok, two, _} = Store.create(name, @data)
      assert Store.revoke_all(name) == {:ok, 2}
      for sid <- [one, two], do: assert(Store.get(name, sid) == {:error, :not_found})
    end
  end

  describe "Plug" do
    test "login restarts both timeouts in one step", %{name: name} do
      config = SessionServerStore.init(name: name, principal_key: "user")
      visitor = SessionServerStore.put(nil, nil, %{"cart" => 1}, config)
      {:ok, created} = Store.peek(name, visitor)
      advance(name, {175, :minute})
      alice = renew(visitor, %{"cart" => 1, "user" => "alice"}, config)
      {:ok, session} = Store.peek(name, alice)
      assert session.created_ms == created.created_ms
      assert session.authenticated_ms == created.created_ms + minutes(175)
      assert session.expires_ms == session.authenticated_ms + minutes(180)
      assert {:ok, %{created: 1, renewed: 1, deleted: 0}} = Store.stats(name)
    end

    test "rotation keeps the deadline, reauthentication does not", %{name: name} do
      config = SessionServerStore.init(name: name, principal_key: "user")
      data = %{"user" => "alice"}
      sid = SessionServerStore.put(nil, nil, data, config)
      {:ok, created} = Store.peek(name, sid)
      advance(name, {60, :minute})
      sid = renew(sid, data, config)
      assert {:ok, %{expires_ms: expires, authenticated_ms: authenticated}} = Store.peek(name, sid)
      assert {expires, authenticated} == {created.expires_ms, created.created_ms}
      sid = renew(sid, data, config, %{session_server_store_reauthenticated: true})
      assert {:ok, %{authenticated_ms: authenticated}} = Store.peek(name, sid)
      assert authenticated == created.created_ms + minutes(60)
    end

    test "without a user every renewal is a login", %{name: name} do
      config = SessionServerStore.init(name: name)
      sid = SessionServerStore.put(nil, nil, @data, config)
      {:ok, created} = Store.peek(name, sid)
      advance(name, {60, :minute})
      sid = renew(sid, @data, config)
      assert {:ok, %{expires_ms: expires}} = Store.peek(name, sid)
      assert expires == created.expires_ms + minutes(60)
    end

    test "renewal of an empty session ends it", %{name: name} do
      config = SessionServerStore.init(name: name)
      sid = SessionServerStore.put(nil, nil, @data, config)
      assert byte_size(renew(sid, %{}, config)) == 128
      assert {:ok, %{sessions: 0}} = Store.stats(name)
    end

    test "failed renewal keeps the session", %{name: name} do
      config = SessionServerStore.init(name: name)
      sid = SessionServerStore.put(nil, nil, @data, config)
      assert_raise Error, fn -> renew(sid, %{"large" => :binary.copy("x", 2_000_000)}, config) end
      assert {:ok, %{data: @data}} = Store.get(name, sid)
    end

    test "renewal after a logout brings nothing back, a login does", %{name: name} do
      config = SessionServerStore.init(name: name, principal_key: "user")

      overtaken = fn data, new_data ->
        sid = SessionServerStore.put(nil, nil, data, config)
        conn = %{private: %{plug_session_info: :renew}, req_headers: [{"cookie", "sid=#{sid}"}]}
        {^sid, _} = SessionServerStore.get(conn, sid, config)
        :ok = Store.delete(name, sid)
        :ok = SessionServerStore.delete(conn, sid, config)
        SessionServerStore.put(conn, nil, new_data, config)
      end

      rotated = overtaken.(%{"user" => "alice"}, %{"user" => "alice"})
      assert Store.get(name, rotated) == {:error, :not_found}
      logged_in = overtaken.(%{"cart" => 1}, %{"cart" => 1, "user" => "alice"})
      assert {:ok, %{data: %{"user" => "alice"}}} = Store.get(name, logged_in)
    end

    test "interrupted renewal does not reach the next request", %{name: name} do
      config = SessionServerStore.init(name: name)
      sid = SessionServerStore.put(nil, nil, @data, config)
      conn = %{private: %{plug_session_info: :renew}, req_headers: [{"cookie", "sid=#{sid}"}]}
      :ok = SessionServerStore.delete(conn, sid, config)
      # Another client's request in the same process.
      other = SessionServerStore.put(%{conn | req_headers: []}, nil, %{"b" => 2}, config)
      assert {:ok, %{data: @data}} = Store.get(name, sid)
      assert {:ok, %{data: %{"b" => 2}}} = Store.get(name, other)
    end

    def device(conn), do: conn.device

    test "label is set at a login only", %{name: name} do
      config = SessionServerStore.init(name: name, principal_key: "user", label: {__MODULE__, :device})
      labels = fn -> name |> Store.list!("alice") |> Enum.map(& &1.label) end
      login = %{"user" => "alice"}
      sid = SessionServerStore.put(%{device: "phone"}, nil, login, config)
      assert labels.() == ["phone"]
      conn = %{device: "another"}
      {^sid, _} = SessionServerStore.get(conn, sid, config)
      SessionServerStore.put(conn, sid, Map.put(login, "b", 1), config)
      assert labels.() == ["phone"]
      {:ok, 1} = Store.revoke(name, "alice")

      for {label, stored} <- [
            {nil, nil},
            {String.duplicate("x", 300), String.duplicate("x", 255)},
            # Cut between two characters.
            {String.duplicate("ä", 200), String.duplicate("ä", 127)}
          ] do
        SessionServerStore.put(%{device: label}, nil, login, config)
        assert labels.() == [stored]
        {:ok, 1} = Store.revoke(name, "alice")
      end

      assert_raise ArgumentError, ~r/:label/, fn ->
        SessionServerStore.put(%{device: :phone}, nil, login, config)
      end
    end

    test "reference is read and not stored", %{name: name} do
      config = SessionServerStore.init(name: name, ref_key: :session_ref)
      sid = SessionServerStore.put(nil, nil, @data, config)
      {:ok, ref} = Store.ref(name, sid)
      assert {^sid, data} = SessionServerStore.get(nil, sid, config)
      assert data["session_ref"] == ref
      assert "session_server_store:" <> _ = data["live_socket_id"]
      refute :erlang.term_to_binary(data) =~ sid
      SessionServerStore.put(nil, sid, Map.put(data, "b", 2), config)
      assert {:ok, %{data: stored}} = Store.get(name, sid)
      assert stored == %{"a" => 1, "b" => 2}
    end

    test "live_socket_id of the application stays", %{name: name} do
      config = SessionServerStore.init(name: name, ref_key: "ref")
      sid = SessionServerStore.put(nil, nil, %{"live_socket_id" => "users:1"}, config)
      assert {^sid, %{"live_socket_id" => "users:1"} = data} = SessionServerStore.get(nil, sid, config)
      SessionServerStore.put(nil, sid, Map.put(data, "b", 2), config)
      assert {:ok, %{data: %{"live_socket_id" => "users:1", "b" => 2}}} = Store.get(name, sid)
    end

    test "session and ref are those of the request", %{name: name} do
      config = SessionServerStore.init(name: name, principal_key: "user")
      sid = SessionServerStore.put(nil, nil, %{"user" => "alice"}, config)
      conn = %{req_headers: [{"cookie", "a=b; sid=#{sid}"}]}
      assert {SessionServerStore.session(conn), SessionServerStore.ref(conn)} == {nil, nil}
      {^sid, _} = SessionServerStore.get(conn, sid, config)
      assert %{data: nil, version: 1, authenticated_ms: ms} = SessionServerStore.session(conn)
      assert is_integer(ms)
      assert {:ok, SessionServerStore.ref(conn)} == Store.ref(name, sid)
      assert SessionServerStore.ref(conn, name: name) == SessionServerStore.ref(conn)
      assert SessionServerStore.ref(conn, name: Other) == nil
      # Another client's request in the same process.
      other = %{req_headers: [{"cookie", "sid=#{String.duplicate("x", 128)}"}]}
      assert {SessionServerStore.session(other), SessionServerStore.ref(other)} == {nil, nil}
    end

    test "session of several stores needs the name", %{name: name} do
      other = Module.concat(name, Other)
      start_supervised!({SessionServerStore, name: other})

      sids =
        for store <- [name, other] do
          config = SessionServerStore.init(name: store)
          sid = SessionServerStore.put(nil, nil, @data, config)
          {^sid, _} = SessionServerStore.get(nil, sid, config)
          sid
        end

      conn = %{req_headers: [{"cookie", Enum.map_join(sids, "; ", &"sid=#{&1}")}]}
      assert_raise ArgumentError, ~r/:name/, fn -> SessionServerStore.ref(conn) end
      assert {:ok, SessionServerStore.ref(conn, name: other)} == Store.ref(other, List.last(sids))
    end

    test "wrong options are named", %{name: name} do
      for {option, value} <- [
            ref_key: nil,
            ref_key: 5,
            label: "text",
            label: {1, 2},
            label: {Mod, :fun},
            name: nil,
            name: "x"
          ] do
        assert_raise ArgumentError, ~r/#{inspect(option)}/, fn -> SessionServerStore.init([{option, value}]) end
      end

      assert %{name: ^name} = SessionServerStore.init(name: name)
    end
  end
end
