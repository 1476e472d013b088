"""The operations of the UNet's layers: eager, fused and compiled."""
