"""The operations that the UNet is made of: eager, fused and compiled."""
