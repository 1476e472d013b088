from torch import Tensor

class SD15:
    def process_out(self, latent: Tensor) -> Tensor: ...
