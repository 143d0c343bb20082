# Defines the modules of a guide's examples, so that tests run what the guides show.
defmodule Guide do
  @moduledoc false

  @folder Path.expand("../../guides", __DIR__)

  @doc "Defines the modules with these names that the guide shows."
  defmacro define_modules(file, names) do
    path = Path.join(@folder, file)
    names = Enum.map(names, &Macro.expand(&1, __CALLER__))

    definitions =
      for [_, code] <- Regex.scan(~r/```elixir\n(.*?)```/s, File.read!(path)),
          {:defmodule, _, [{:__aliases__, _, parts} | _]} = definition <- List.wrap(Code.string_to_quoted!(code)),
          Module.concat(parts) in names,
          do: definition

    if length(definitions) != length(names), do: raise("#{file} does not define all of #{inspect(names)}")
    {:__block__, [], definitions}
  end
end
