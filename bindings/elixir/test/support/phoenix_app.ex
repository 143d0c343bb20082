# A Phoenix application with LiveViews, on a real server, for the tests tagged :phoenix. It has the
# modules of guides/phoenix.md. Not defined without Phoenix.
if Code.ensure_loaded?(Phoenix.LiveView) and Code.ensure_loaded?(Bandit) do
  defmodule PhoenixApp do
    @moduledoc false

    def store, do: MyApp.Sessions

    @doc "What the application's supervision tree holds. `:start_endpoint` starts the server on a free port."
    def children(store_options) do
      [
        {Phoenix.PubSub, name: PhoenixApp.PubSub},
        {SessionServerStore, [name: store(), pubsub: PhoenixApp.PubSub] ++ store_options},
        PhoenixApp.Endpoint
      ]
    end

    def configure do
      Application.put_env(:phoenix, :json_library, Jason)

      Application.put_env(:phoenix_app, PhoenixApp.Endpoint,
        adapter: Bandit.PhoenixAdapter,
        http: [ip: {127, 0, 0, 1}, port: 0],
        server: true,
        url: [host: "localhost"],
        check_origin: false,
        secret_key_base: String.duplicate("s", 64),
        live_view: [signing_salt: "for tests"],
        pubsub_server: PhoenixApp.PubSub,
        render_errors: [formats: [html: PhoenixApp.Errors]]
      )
    end

    def port do
      {:ok, {_address, port}} = PhoenixApp.Endpoint.server_info(:http)
      port
    end
  end

  # What `mix phx.new` generates.
  defmodule MyAppWeb do
    @moduledoc false
    defmacro __using__(:live_view), do: quote(do: use(Phoenix.LiveView))
  end

  require Guide
  Guide.define_modules("phoenix.md", [MyAppWeb.Devices, MyAppWeb.DevicesLive, MyAppWeb.UserAuth])

  defmodule PhoenixApp.Errors do
    @moduledoc false
    def render(template, _assigns), do: template
  end

  defmodule PhoenixApp.Component do
    @moduledoc false
    use Phoenix.LiveComponent

    def render(assigns) do
      ~H"""
      <button id="in-component" phx-click="use" phx-target={@myself}>use</button>
      """
    end

    def handle_event("use", _params, socket) do
      SessionServerStore.LiveView.touch()
      {:noreply, socket}
    end
  end

  defmodule PhoenixApp.HomeLive do
    @moduledoc false
    use Phoenix.LiveView

    on_mount(
      {SessionServerStore.LiveView,
       name: MyApp.Sessions, redirect_to: "/ended", touch_interval: {1, :second}, check_interval: {50, :millisecond}}
    )

    def mount(_params, session, socket) do
      {:ok, assign(socket, user: session["user_id"], clicks: 0)}
    end

    def handle_params(_params, _uri, socket), do: {:noreply, socket}

    def render(assigns) do
      ~H"""
      <p id="user">{@user}</p>
      <p id="clicks">{@clicks}</p>
      <button id="click" phx-click="click">click</button>
      <.live_component module={PhoenixApp.Component} id="component" />
      """
    end

    def handle_event("click", _params, socket), do: {:noreply, update(socket, :clicks, &(&1 + 1))}
  end

  defmodule PhoenixApp.Pages do
    @moduledoc false
    use Phoenix.Controller, formats: []
    import Plug.Conn

    def login(conn, %{"user" => user}),
      do: conn |> configure_session(renew: true) |> put_session("user_id", user) |> text("hello")

    def logout(conn, _params), do: conn |> configure_session(drop: true) |> text("bye")
    def ended(conn, _params), do: text(conn, "ended")
  end

  defmodule PhoenixApp.Layouts do
    @moduledoc false
    use Phoenix.Component

    def root(assigns) do
      ~H"""
      <!DOCTYPE html>
      <html>
        <head><meta name="csrf-token" content={Plug.CSRFProtection.get_csrf_token()} /></head>
        <body>{@inner_content}</body>
      </html>
      """
    end
  end

  defmodule PhoenixApp.Router do
    @moduledoc false
    use Phoenix.Router
    import Phoenix.LiveView.Router
    import Plug.Conn

    pipeline :browser do
      plug(:fetch_session)
      plug(:fetch_live_flash)
      plug(:put_root_layout, html: {PhoenixApp.Layouts, :root})
      plug(:protect_from_forgery)
    end

    scope "/" do
      pipe_through(:browser)
      get("/login/:user", PhoenixApp.Pages, :login)
      get("/logout", PhoenixApp.Pages, :logout)
      get("/ended", PhoenixApp.Pages, :ended)
      live("/", PhoenixApp.HomeLive)

      live_session :users, on_mount: [{SessionServerStore.LiveView, name: MyApp.Sessions}, MyAppWeb.UserAuth] do
        live("/devices", MyAppWeb.DevicesLive)
      end
    end
  end

  defmodule PhoenixApp.Endpoint do
    @moduledoc false
    use Phoenix.Endpoint, otp_app: :phoenix_app

    @session_options [
      store: SessionServerStore,
      name: MyApp.Sessions,
      key: "sid",
      principal_key: "user_id",
      label: {MyAppWeb.Devices, :label},
      ref_key: "session_ref"
    ]

    socket("/live", Phoenix.LiveView.Socket,
      websocket: [connect_info: [session: @session_options]],
      drainer: false
    )

    plug(SessionServerStore.Plug, @session_options)
    plug(PhoenixApp.Router)
  end
end
