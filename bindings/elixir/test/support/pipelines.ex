# Small applications over the real Plug, for the tests tagged :plug: one with cookies, one with a
# header. Their options are compiled in, as in any application. Not defined without Plug.
if Code.ensure_loaded?(Plug.Router) do
  require Guide
  Guide.define_modules("cookie_store.md", [MyAppWeb.ImportCookieSession])

  defmodule Pipelines.Routes do
    @moduledoc false
    use Plug.Router

    plug(:match)
    plug(:dispatch)

    get "/" do
      send_resp(conn, 200, "home")
    end

    get "/whoami" do
      send_resp(conn, 200, get_session(conn, "user_id") || "guest")
    end

    post "/count" do
      n = (get_session(conn, "n") || 0) + 1
      conn |> put_session("n", n) |> send_resp(200, "#{n}")
    end

    post "/login/:user" do
      conn |> configure_session(renew: true) |> put_session("user_id", user) |> send_resp(200, "hello")
    end

    post "/password" do
      ms = SessionServerStore.session(conn).authenticated_ms
      conn |> SessionServerStore.reauthenticated() |> send_resp(200, "#{ms}")
    end

    post "/renew" do
      conn |> configure_session(renew: true) |> send_resp(200, "")
    end

    post "/logout" do
      conn |> configure_session(drop: true) |> send_resp(200, "bye")
    end

    post "/clear" do
      conn |> clear_session() |> send_resp(200, "")
    end

    post "/ignore" do
      conn |> put_session("n", 1_000) |> configure_session(ignore: true) |> send_resp(200, "")
    end

    # Ends the session between this request's read and its write, as another request could.
    post "/overtaken" do
      [sid | _] = Enum.map(conn.req_cookies, &elem(&1, 1)) ++ get_req_header(conn, "session-id")
      :ok = SessionServerStore.Store.delete(sid)
      conn |> put_session("n", 1_000) |> send_resp(200, "")
    end

    # The user logs in between this request's read and its write, in another tab.
    post "/login-meanwhile/:user" do
      [sid | _] = Enum.map(conn.req_cookies, &elem(&1, 1)) ++ get_req_header(conn, "session-id")
      data = %{"user_id" => user}
      {:ok, new_sid, _} = SessionServerStore.Store.renew(sid, data: data, principal: user)
      conn |> put_session("n", 1_000) |> put_resp_header("x-new-sid", new_sid) |> send_resp(200, "")
    end
  end

  defmodule Pipelines.Cookie do
    @moduledoc false
    use Plug.Builder

    plug(Plug.Session,
      store: SessionServerStore,
      key: "sid",
      max_age: 86_400,
      same_site: "Lax",
      timeout: 86_400,
      idle_timeout: :infinity,
      principal_key: "user_id"
    )

    plug(:fetch_session)
    plug(Pipelines.Routes)
  end

  defmodule Pipelines.OwnCookie do
    @moduledoc false
    use Plug.Builder

    plug(SessionServerStore.Plug, key: "sid", max_age: 86_400, same_site: "Lax", principal_key: "user_id")
    plug(:fetch_session)
    plug(Pipelines.Routes)
  end

  defmodule Pipelines.Header do
    @moduledoc false
    use Plug.Builder

    plug(SessionHeaderPlug,
      store: SessionServerStore,
      key: "Session-Id",
      timeout: 86_400,
      idle_timeout: :infinity,
      principal_key: "user_id"
    )

    plug(:fetch_session)
    plug(Pipelines.Routes)
  end
end
