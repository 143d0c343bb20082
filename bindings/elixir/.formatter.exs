# What `mix format` looks at.
[
  inputs: ["mix.exs", ".formatter.exs", "{lib,test}/**/*.{ex,exs}", "../../examples/elixir/*.exs"],
  line_length: 120
]
