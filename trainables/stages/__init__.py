"""The stages: each trains or measures something and publishes it under its identity."""
