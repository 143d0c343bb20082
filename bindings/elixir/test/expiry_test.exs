# Idle sessions expire, in the Plug callbacks and under Plug.Session. The application runs on a
# manual clock, so no test sleeps. Restarts the application, so it runs alone.
defmodule SessionServerStore.ExpiryTest do
  use ExUnit.Case, async: false
  @compile {:no_warn_undefined, [Pipelines.Cookie, Plug.Conn, Plug.Test]}

  alias SessionServerStore.Store

  setup do: AppConfig.configure(url: "memory:?clock=manual", sweep_interval: :infinity)

  defp advance(duration), do: :ok = Store.advance_clock(Store.default(), duration)

  test "idle session reads as empty" do
    opts = SessionServerStore.init(idle_timeout: {400, :millisecond})
    sid = SessionServerStore.put(nil, nil, %{"a" => 1}, opts)
    advance({399, :millisecond})
    assert SessionServerStore.get(nil, sid, opts) == {sid, %{"a" => 1}}
    advance({400, :millisecond})
    assert SessionServerStore.get(nil, sid, opts) == {nil, %{}}
  end

  test "absolute timeout ends a session in use" do
    opts = SessionServerStore.init(timeout: {1, :hour}, idle_timeout: {40, :minute})
    sid = SessionServerStore.put(nil, nil, %{"a" => 1}, opts)
    advance({30, :minute})
    assert {^sid, _} = SessionServerStore.get(nil, sid, opts)
    advance({30, :minute})
    assert SessionServerStore.get(nil, sid, opts) == {nil, %{}}
  end

  @tag :plug
  test "idle session gets a new id under Plug" do
    count = fn cookie ->
      conn = Plug.Test.conn(:post, "/count")
      conn = if cookie, do: Plug.Conn.put_req_header(conn, "cookie", "sid=#{cookie}"), else: conn
      conn = Pipelines.Cookie.call(conn, Pipelines.Cookie.init([]))
      {conn.resp_body, conn.resp_cookies["sid"].value}
    end

    # The pipeline's timeout is 86400 seconds.
    assert {"1", sid} = count.(nil)
    advance(86_399)
    assert {"2", ^sid} = count.(sid)
    advance(1)
    assert {"1", new} = count.(sid)
    assert new != sid
  end
end
