"""Batch norm whose statistics are those of all ranks' rows.

It serves in the heads of methods always, in the student by choice (recipe: batch_norm).
torch.nn.SyncBatchNorm does the same on GPUs only, and waits for the GPU three times a layer (pytorch#78549).
"""

import torch
from torch import Tensor, nn

from raykd.maths.gather import all_gather, num_ranks


class AnyDeviceSyncBatchNorm(nn.BatchNorm2d):
    """[n, channels, h, w] -> the same shape: mean 0 and variance 1 over the global batch, then affine.

    In evaluation the running statistics serve, as in torch.nn.BatchNorm2d, which it is on one rank. All
    ranks' running statistics are equal.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Returns x [n, channels, h, w] normalised; in training it moves the running statistics."""
        if num_ranks() == 1 or not self.training:
            return super().forward(x)
        exact = x.float()
        mean = _global_mean(exact)
        centred = exact - mean
        variance = _global_mean(centred.square())
        with torch.no_grad():
            rows = x.numel() // x.shape[1] * num_ranks()
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(variance.flatten() * rows / max(1, rows - 1), self.momentum)
        scale = (variance + self.eps).rsqrt() * self.weight[:, None, None]
        return (centred * scale + self.bias[:, None, None]).to(x.dtype)


def conv_bn(channels_in: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and a batch norm over all ranks' rows. Sizes: s -> ceil(s / stride)."""
    conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, AnyDeviceSyncBatchNorm(channels))


def conv_bn_relu(channels_in: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """The same, and a ReLU."""
    return nn.Sequential(*conv_bn(channels_in, channels, kernel, stride), nn.ReLU())


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """The module, each BatchNorm2d in it replaced by one over all ranks' rows; the same weights and names."""
    for name, child in module.named_children():
        new = _convert(child) if type(child) is nn.BatchNorm2d else convert_sync_batchnorm(child)
        setattr(module, name, new)
    return module


def take_batch_counters(net: nn.Module) -> list[Tensor]:
    """Returns the counters of batches of a net's batch norms, which no longer move them.

    Whoever takes them adds 1 for each batch, to all at once: on a GPU each would be a launch of its own.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.momentum is not None]
    counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    for norm in norms:
        vars(norm)["num_batches_tracked"] = None  # which its forward pass sees; its state has the buffer
    return counters


def _convert(norm: nn.BatchNorm2d) -> AnyDeviceSyncBatchNorm:
    sync_norm = AnyDeviceSyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    sync_norm.weight, sync_norm.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(sync_norm, name, buffer)
    return sync_norm.train(norm.training)


def _global_mean(x: Tensor) -> Tensor:
    """The mean of each channel over all ranks. [n, channels, h, w] -> [channels, 1, 1]."""
    return all_gather(x.mean(dim=(0, 2, 3))[None]).mean(dim=0)[:, None, None]
