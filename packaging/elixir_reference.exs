# Prints the documentation of the modules in an ebin directory as one Markdown page.
[ebin] = System.argv()
Code.prepend_path(ebin)

text = fn
  %{"en" => doc} -> doc
  _ -> nil
end

# Headings of the documentation are below those of this page.
nested = fn doc, level -> Regex.replace(~r/^#+(?= )/m, doc, &(level <> &1)) end

IO.puts("# Elixir reference\n")

for path <- Enum.sort(Path.wildcard(Path.join(ebin, "Elixir.*.beam"))),
    module = path |> Path.basename(".beam") |> String.to_atom(),
    {:docs_v1, _, :elixir, _, moduledoc, _, functions} <- [Code.fetch_docs(path)],
    doc = text.(moduledoc) do
  IO.puts("## #{inspect(module)}\n\n#{nested.(doc, "##")}\n")

  for {{kind, _name, _arity}, _, [signature | _], function_doc, _} when kind in [:function, :macro] <- functions,
      doc = text.(function_doc) do
    IO.puts("### `#{signature}` {: ##{:erlang.phash2({module, signature})} }\n\n#{nested.(doc, "###")}\n")
  end
end
