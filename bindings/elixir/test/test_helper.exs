# Starts ExUnit. Tests that need an optional package have its tag. Without it they are skipped, and a
# line at the end says which ones and why.
missing =
  for {tag, module} <- [plug: Plug.Session, telemetry: :telemetry, phoenix: Phoenix.LiveView],
      not Code.ensure_loaded?(module),
      do: tag

{:ok, _} = TestReport.start()
ExUnit.start(exclude: missing, formatters: [ExUnit.CLIFormatter, TestReport])
ExUnit.after_suite(&TestReport.print/1)
