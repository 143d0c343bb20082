# The Plug store without Plug: the four callbacks, called as Plug.Session calls them, with no conn at all.
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
    test "a new session gets an id of 128 url-safe characters and reads back", %{opts: opts} do
      sid = put(nil, @data, opts)
      assert sid =~ ~r/\A[A-Za-z0-9_-]{128}\z/
      assert get(sid, opts) == {sid, @data}
    end

    test "two sessions never share an id", %{opts: opts} do
      assert put(nil, @data, opts) != put(nil, @data, opts)
    end

    test "put replaces the whole session and keeps the id", %{opts: opts} do
      sid = put(nil, %{"a" => 1, "b" => 2}, opts)
      assert put(sid, %{"c" => 3}, opts) == sid
      assert get(sid, opts) == {sid, %{"c" => 3}}
    end

    test "any term survives, also functions, references and pids", %{opts: opts} do
      data = %{"f" => &String.length/1, "ref" => make_ref(), "pid" => self(), {1, 2} => 3.5}
      sid = put(nil, data, opts)
      assert get(sid, opts) == {sid, data}
    end

    test "deleting one session leaves the others", %{opts: opts} do
      one = put(nil, %{"n" => 1}, opts)
      two = put(nil, %{"n" => 2}, opts)
      assert delete(one, opts) == :ok
      assert get(one, opts) == {nil, %{}}
      assert get(two, opts) == {two, %{"n" => 2}}
    end

    test "deleting what is not there is fine", %{opts: opts} do
      assert delete("unknown", opts) == :ok
      assert delete(nil, opts) == :ok
    end

    test "other processes see the same sessions", %{opts: opts} do
      sid = Task.await(Task.async(fn -> put(nil, @data, opts) end))
      assert get(sid, opts) == {sid, @data}
    end
  end

  describe "strictness" do
    test "an unknown, malformed or empty id is no session, and is not handed back", %{opts: opts} do
      for sid <- ["unknown", "", String.duplicate("A", 128), <<0, 255>>, String.duplicate("=", 128)] do
        assert get(sid, opts) == {nil, %{}}
      end

      assert get(nil, opts) == {nil, %{}}
    end

    test "put under an id that nobody minted stores nothing and gives the id back", %{opts: opts} do
      for sid <- ["chosen by the client", String.duplicate("B", 128)] do
        assert put(sid, @data, opts) == sid
        assert get(sid, opts) == {nil, %{}}
      end
    end

    test "put after delete stores nothing and gives the dead id back", %{opts: opts} do
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
    test "a new empty session gets a well-formed id that names nothing", %{opts: opts} do
      sid = put(nil, %{}, opts)
      assert sid =~ ~r/\A[A-Za-z0-9_-]{128}\z/
      assert sid != put(nil, %{}, opts)
      assert get(sid, opts) == {nil, %{}}
      assert put(sid, @data, opts) == sid
      assert get(sid, opts) == {nil, %{}}
    end

    test "an empty session over a living one ends it", %{opts: opts} do
      sid = put(nil, @data, opts)
      assert put(sid, %{}, opts) == sid
      assert get(sid, opts) == {nil, %{}}
      assert Store.get(sid) == {:error, :not_found}
    end
  end

  describe "timeouts" do
    test "0 is dead at once" do
      for opts <- [init(timeout: 0), init(idle_timeout: 0)] do
        sid = put(nil, @data, opts)
        assert byte_size(sid) == 128
        assert get(sid, opts) == {nil, %{}}
      end
    end

    test "the options reach the session, in seconds" do
      sid = put(nil, @data, init(timeout: 100, idle_timeout: 50))
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.last_seen_ms == 50_000

      sid = put(nil, @data, init(timeout: 100, idle_timeout: :infinity))
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.created_ms == 100_000

      sid = put(nil, @data, init(timeout: :infinity, idle_timeout: :infinity))
      assert {:ok, %{expires_ms: :infinity}} = Store.peek(sid)
    end

    test "the defaults are 10800 and 600 seconds", %{opts: opts} do
      sid = put(nil, @data, opts)
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.created_ms == 600_000

      sid = put(nil, @data, init(idle_timeout: :infinity))
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.created_ms == 10_800_000
    end

    test "a session dies by itself when it is idle" do
      opts = init(idle_timeout: {400, :millisecond})
      sid = put(nil, @data, opts)
      assert get(sid, opts) == {sid, @data}
      Process.sleep(500)
      assert get(sid, opts) == {nil, %{}}
    end
  end

  describe "init" do
    test "needs no application and holds nothing that cannot be compiled in" do
      opts = init(timeout: 5, idle_timeout: :infinity, principal_key: "user_id")
      assert {^opts, _} = Code.eval_quoted(Macro.escape(opts))
      refute inspect(opts) =~ "#Reference"
    end

    test "names the option and the value that are wrong" do
      for name <- [:timeout, :idle_timeout],
          value <- [-1, 1.5, "600", nil, :never, [], %{}, {5, :second}, {-1, :millisecond}] do
        error = assert_raise ArgumentError, fn -> init([{name, value}]) end
        assert error.message =~ inspect(name)
        assert error.message =~ inspect(value)
      end
    end

    test "takes every documented form" do
      for value <- [0, 1, 86_400, :infinity, {1, :millisecond}, 10 ** 30] do
        assert init(timeout: value, idle_timeout: value)
      end
    end

    test "ignores the options of others but not a misspelt one of its own" do
      assert init(signing_salt: "x", same_site: "Lax", max_age: 5, secure: true, table: :t, key: "k") == init([])

      for name <- [:timout, :time_out, :idle_timout, :idletimeout, :idle_timeout_ms] do
        error = assert_raise ArgumentError, fn -> init([{name, 5}]) end
        assert error.message =~ inspect(name)
      end
    end
  end

  describe "principal_key" do
    test "makes a user's sessions listable and revocable, integers as strings" do
      opts = init(principal_key: "user_id")
      sid = put(nil, %{"user_id" => 770_001}, opts)
      other = put(nil, %{"user_id" => 770_001}, opts)
      assert {:ok, [_, _]} = Store.list("770001")
      assert Store.revoke("770001", except: sid) == {:ok, 1}
      assert get(other, opts) == {nil, %{}}
      assert {^sid, _} = get(sid, opts)
    end

    test "a session that loses its user loses its principal" do
      opts = init(principal_key: :user)
      sid = put(nil, %{user: "fleeting"}, opts)
      assert {:ok, [_]} = Store.list("fleeting")
      put(sid, %{theme: "dark"}, opts)
      assert Store.list("fleeting") == {:ok, []}
      assert {^sid, _} = get(sid, opts)
    end

    test "a value that cannot be a principal raises and is not shown" do
      opts = init(principal_key: "user_id")
      error = assert_raise ArgumentError, fn -> put(nil, %{"user_id" => {:secret, 1}}, opts) end
      assert error.message =~ "user_id"
      refute error.message =~ "secret"
    end
  end

  describe "what cannot be read" do
    for {what, bytes} <- [
          {"no external term", "hello"},
          {"a truncated term", binary_part(:erlang.term_to_binary(%{"a" => 1}), 0, 5)},
          {"a term that is no map", :erlang.term_to_binary([:not, :a, :map])},
          {"nothing", ""}
        ] do
      test "#{what} is an empty session and a log line without the id", %{opts: opts} do
        sid = put(nil, @data, opts)
        {:ok, _} = Store.put(%{Store.default() | raw: true}, sid, unquote(bytes))

        log = capture_log(fn -> assert get(sid, opts) == {nil, %{}} end)
        assert log =~ "cannot be read"
        refute log =~ sid
        refute log =~ String.slice(sid, 0, 16)
      end
    end
  end

  test "a session that is too large raises, it is not silently lost", %{opts: opts} do
    large = %{"blob" => :binary.copy("x", 2_000_000)}
    error = assert_raise Error, fn -> put(nil, large, opts) end
    assert error.reason == :too_large

    sid = put(nil, @data, opts)
    assert_raise Error, fn -> put(sid, large, opts) end
    assert get(sid, opts) == {sid, @data}
  end
end
