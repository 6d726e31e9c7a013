"""What a trial is: plain torch, no Ray, no Optuna, no MLflow."""
