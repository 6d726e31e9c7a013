"""Video ViT, masked autoencoder and classification heads."""
