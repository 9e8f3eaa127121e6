"""The dashboard: a page over one read-only store. It holds no formula, transform or plot of its own."""

import os

# Read by Gradio when it is imported, which happens in `app.ui` at the earliest.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
