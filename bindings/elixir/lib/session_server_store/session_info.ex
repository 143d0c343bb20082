# What a principal's list tells about one session. Holds neither the id nor the data.
defmodule SessionServerStore.SessionInfo do
  @moduledoc """
  One session in the list of a principal, see `SessionServerStore.Store.list/2`.

    * `:ref` - 32 bytes that name the session to `SessionServerStore.Store.delete_ref/2`; not the id
    * `:size` - length of the stored payload in bytes
    * the other fields are those of `SessionServerStore.Session`
  """

  alias SessionServerStore.Native

  @enforce_keys [:ref, :size, :version, :created_ms, :last_seen_ms, :expires_ms]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          ref: <<_::256>>,
          size: non_neg_integer,
          version: pos_integer,
          created_ms: integer,
          last_seen_ms: integer,
          expires_ms: integer | :infinity
        }

  @doc false
  @spec new(Native.entry()) :: t
  def new({ref, size, {version, created_ms, last_seen_ms, expires_ms}}) do
    %__MODULE__{
      ref: ref,
      size: size,
      version: version,
      created_ms: created_ms,
      last_seen_ms: last_seen_ms,
      expires_ms: expires_ms
    }
  end
end
