# What a principal's list tells about one session. Holds neither the id nor the data.
defmodule SessionServerStore.SessionInfo do
  @moduledoc """
  One session in the list of a principal, see `SessionServerStore.Store.list/2`.

    * `:ref` - 32 bytes that name the session to `SessionServerStore.Store.delete_ref/3` and
      `SessionServerStore.Store.touch_ref/3`; not the id
    * `:label` - what `:label` has set, such as the device; `nil` if nothing
    * `:size` - length of the stored payload in bytes
    * the other fields are those of `SessionServerStore.Session`
  """

  alias SessionServerStore.{Native, Session}

  @enforce_keys [:ref, :label, :size, :version, :created_ms, :last_seen_ms, :expires_ms] ++
                  [:authenticated_ms, :timeout_ms, :idle_timeout_ms]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          ref: <<_::256>>,
          label: binary | nil,
          size: non_neg_integer,
          version: pos_integer,
          created_ms: integer,
          last_seen_ms: integer,
          expires_ms: integer | :infinity,
          authenticated_ms: integer | nil,
          timeout_ms: non_neg_integer | :infinity,
          idle_timeout_ms: non_neg_integer | :infinity
        }

  @doc false
  @spec new(Native.entry()) :: t
  def new({ref, size, meta, label}) do
    fields = nil |> Session.new(meta) |> Map.from_struct() |> Map.delete(:data)
    struct!(__MODULE__, Map.merge(fields, %{ref: ref, size: size, label: label}))
  end
end
