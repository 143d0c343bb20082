# The Plug store without Plug: the four callbacks, called as Plug.Session calls them, without a
# conn.
defmodule SessionServerStoreTest do
  use ExUnit.Case, async: true
  import ExUnit.CaptureLog

  alias SessionServerStore.{Error, Store}

  doctest SessionServerStore

  @data %{"user_id" => 42, "nested" => %{list: [1, :two, "three"], pid: nil}}

  setup do
    {:ok, opts: SessionServerStore.init([])}
  end

  defp init(opts), do: SessionServerStore.init(opts)
  defp get(sid, opts), do: SessionServerStore.get(nil, sid, opts)
  defp put(sid, data, opts), do: SessionServerStore.put(nil, sid, data, opts)
  defp delete(sid, opts), do: SessionServerStore.delete(nil, sid, opts)

  describe "get, put and delete" do
    test "new session reads back", %{opts: opts} do
      sid = put(nil, @data, opts)
      assert sid =~ ~r/\A[A-Za-z0-9_-]{128}\z/
      assert get(sid, opts) == {sid, @data}
    end

    test "put replaces the session, keeps the id", %{opts: opts} do
      sid = put(nil, %{"a" => 1, "b" => 2}, opts)
      assert put(sid, %{"c" => 3}, opts) == sid
      assert get(sid, opts) == {sid, %{"c" => 3}}
    end

    test "functions, references and pids read back", %{opts: opts} do
      data = %{"f" => &String.length/1, "ref" => make_ref(), "pid" => self(), {1, 2} => 3.5}
      sid = put(nil, data, opts)
      assert get(sid, opts) == {sid, data}
    end

    test "delete ends one session", %{opts: opts} do
      one = put(nil, %{"n" => 1}, opts)
      two = put(nil, %{"n" => 2}, opts)
      assert delete(one, opts) == :ok
      assert get(one, opts) == {nil, %{}}
      assert get(two, opts) == {two, %{"n" => 2}}
    end

    test "delete of a missing session is ok", %{opts: opts} do
      assert delete("unknown", opts) == :ok
      assert delete(nil, opts) == :ok
    end
  end

  describe "strictness" do
    test "unknown and malformed ids read as empty", %{opts: opts} do
      for sid <- ["unknown", "", String.duplicate("A", 128), <<0, 255>>, String.duplicate("=", 128)] do
        assert get(sid, opts) == {nil, %{}}
      end

      assert get(nil, opts) == {nil, %{}}
    end

    test "put under an unknown id stores nothing", %{opts: opts} do
      for sid <- ["chosen by the client", String.duplicate("B", 128)] do
        assert put(sid, @data, opts) == sid
        assert get(sid, opts) == {nil, %{}}
      end
    end

    test "put after delete stores nothing", %{opts: opts} do
      sid = put(nil, @data, opts)
      delete(sid, opts)
      assert put(sid, %{"back" => true}, opts) == sid
      assert get(sid, opts) == {nil, %{}}
    end

    test "put after revoke stores nothing" do
      opts = init(principal_key: "user_id")
      sid = put(nil, %{"user_id" => "revoked-user"}, opts)
      assert Store.revoke("revoked-user") == {:ok, 1}
      assert put(sid, %{"user_id" => "revoked-user"}, opts) == sid
      assert get(sid, opts) == {nil, %{}}
    end
  end

  describe "empty sessions" do
    test "new empty session is not stored", %{opts: opts} do
      sid = put(nil, %{}, opts)
      assert sid =~ ~r/\A[A-Za-z0-9_-]{128}\z/
      assert sid != put(nil, %{}, opts)
      assert get(sid, opts) == {nil, %{}}
      assert put(sid, @data, opts) == sid
      assert get(sid, opts) == {nil, %{}}
    end

    test "empty data ends the session", %{opts: opts} do
      sid = put(nil, @data, opts)
      assert put(sid, %{}, opts) == sid
      assert get(sid, opts) == {nil, %{}}
      assert Store.get(sid) == {:error, :not_found}
    end
  end

  describe "timeouts" do
    test "zero expires at once" do
      for opts <- [init(timeout: 0), init(idle_timeout: 0)] do
        sid = put(nil, @data, opts)
        assert byte_size(sid) == 128
        assert get(sid, opts) == {nil, %{}}
      end
    end

    test "options are in seconds" do
      sid = put(nil, @data, init(timeout: 100, idle_timeout: 50))
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.last_seen_ms == 50_000

      sid = put(nil, @data, init(timeout: 100, idle_timeout: :infinity))
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.created_ms == 100_000

      sid = put(nil, @data, init(timeout: :infinity, idle_timeout: :infinity))
      assert {:ok, %{expires_ms: :infinity}} = Store.peek(sid)
    end

    test "defaults are 10800 and 600 seconds", %{opts: opts} do
      sid = put(nil, @data, opts)
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.created_ms == 600_000

      sid = put(nil, @data, init(idle_timeout: :infinity))
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.created_ms == 10_800_000
    end
  end

  describe "init" do
    test "result can be compiled in" do
      opts = init(timeout: 5, idle_timeout: :infinity, principal_key: "user_id")
      assert {^opts, _} = Code.eval_quoted(Macro.escape(opts))
      refute inspect(opts) =~ "#Reference"
    end

    test "wrong timeout is named with its value" do
      for name <- [:timeout, :idle_timeout],
          value <- [-1, 1.5, "600", nil, :never, [], %{}, {5, :seconds}, {1.5, :hour}, {-1, :millisecond}] do
        error = assert_raise ArgumentError, fn -> init([{name, value}]) end
        assert error.message =~ inspect(name)
        assert error.message =~ inspect(value)
      end
    end

    test "milliseconds as seconds are refused" do
      for name <- [:timeout, :idle_timeout] do
        error = assert_raise ArgumentError, fn -> init([{name, :timer.hours(12)}]) end
        assert error.message =~ inspect(name)
        assert error.message =~ "{12, :hour}"
      end
    end

    test "every form of a timeout is accepted" do
      for value <- [0, 1, 86_400, 366 * 86_400, :infinity, {1, :millisecond}, {12, :hour}, {10 ** 30, :week}] do
        assert init(timeout: value, idle_timeout: value)
      end
    end

    test "options of Plug and Phoenix are ignored" do
      plug_session = [
        store: SessionServerStore,
        key: "k",
        domain: "example.org",
        max_age: 5,
        path: "/",
        secure: true,
        http_only: true,
        same_site: "Lax",
        extra: "Priority=High"
      ]

      plug_cookie = [
        encryption_salt: "x",
        signing_salt: "x",
        key_iterations: 1000,
        key_length: 32,
        key_digest: :sha256,
        serializer: :external_term_format,
        log: :debug,
        rotating_options: [],
        secret_key_base: "x"
      ]

      assert init(plug_session ++ plug_cookie ++ [table: :t, csrf_token_key: "c"]) == init([])
    end

    test "unknown option is named" do
      for name <-
            [:timout, :time_out, :idle_timout, :idletimeout, :idle_timeout_ms, :idle, :ttl, :url, :max_sessions] ++
              [:principle_key, :principal, :principal_keys, :sweep_interval, :raw, :data] do
        error = assert_raise ArgumentError, fn -> init([{name, 5}]) end
        assert error.message =~ "unknown option #{inspect(name)}"
      end

      for wrong <- [%{timeout: 5}, [:timeout], nil, "timeout"] do
        assert_raise ArgumentError, ~r/keyword list/, fn -> init(wrong) end
      end
    end
  end

  describe "principal_key" do
    test "user's sessions are listed and revoked" do
      opts = init(principal_key: "user_id")
      sid = put(nil, %{"user_id" => 770_001}, opts)
      other = put(nil, %{"user_id" => 770_001}, opts)
      assert {:ok, [_, _]} = Store.list("770001")
      assert Store.revoke("770001", except: sid) == {:ok, 1}
      assert get(other, opts) == {nil, %{}}
      assert {^sid, _} = get(sid, opts)
    end

    test "session without the key loses its principal" do
      opts = init(principal_key: "user")
      sid = put(nil, %{"user" => "fleeting"}, opts)
      assert {:ok, [_]} = Store.list("fleeting")
      put(sid, %{"theme" => "dark"}, opts)
      assert Store.list("fleeting") == {:ok, []}
      assert {^sid, _} = get(sid, opts)
    end

    test "atom is its string" do
      assert init(principal_key: :user_id) == init(principal_key: "user_id")
      opts = init(principal_key: :user_id)
      sid = put(nil, %{"user_id" => 770_002}, opts)
      assert {:ok, [_]} = Store.list(770_002)
      assert Store.revoke(770_002) == {:ok, 1}
      assert get(sid, opts) == {nil, %{}}
    end

    test "other terms are refused" do
      for wrong <- [nil, true, false, "", 42, 1.5, ~c"user_id", ["user_id"], {:user, :id}, %{}, &inspect/1] do
        error = assert_raise ArgumentError, fn -> init(principal_key: wrong) end
        assert error.message =~ ":principal_key"
        assert error.message =~ inspect(wrong)
      end
    end

    test "wrong user id raises and is not shown" do
      opts = init(principal_key: "user_id")
      error = assert_raise ArgumentError, fn -> put(nil, %{"user_id" => {:secret, 1}}, opts) end
      assert error.message =~ "user_id"
      refute error.message =~ "secret"
    end
  end

  describe "unreadable payload" do
    for {what, bytes} <- [
          {"plain text", "hello"},
          {"truncated term", binary_part(:erlang.term_to_binary(%{"a" => 1}), 0, 5)},
          {"term other than a map", :erlang.term_to_binary([:not, :a, :map])},
          {"empty payload", ""}
        ] do
      test "#{what} reads as empty and is logged without the id", %{opts: opts} do
        sid = put(nil, @data, opts)
        {:ok, _} = Store.put(%{Store.default() | raw: true}, sid, unquote(bytes))

        log = capture_log(fn -> assert get(sid, opts) == {nil, %{}} end)
        assert log =~ "cannot be read"
        refute log =~ sid
        refute log =~ String.slice(sid, 0, 16)
      end
    end
  end

  test "too large session raises", %{opts: opts} do
    large = %{"blob" => :binary.copy("x", 2_000_000)}
    error = assert_raise Error, fn -> put(nil, large, opts) end
    assert error.reason == :too_large

    sid = put(nil, @data, opts)
    assert_raise Error, fn -> put(sid, large, opts) end
    assert get(sid, opts) == {sid, @data}
  end

  test "header plug is defined without Plug" do
    assert Code.ensure_loaded?(SessionHeaderPlug)
    assert function_exported?(SessionHeaderPlug, :call, 2)
  end
end
