"""`python -m ccan.cli`, where the installed command is not on the path."""

from ccan.cli import main

raise SystemExit(main())
