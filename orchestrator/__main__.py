"""The `orchestrator` command, also as `python -m orchestrator`."""

from orchestrator.core.interrupt import end_at_once_if_interrupted

end_at_once_if_interrupted()

from orchestrator.cli import main  # noqa: E402 - a signal during this import must be no traceback

if __name__ == "__main__":
    main()
