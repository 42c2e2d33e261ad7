"""Builds the network that both image models use: diffusers' U-Net, small enough for two cores.

Our choice: all sizes, for two cores.
"""

from torch import Tensor, nn

from fmtda.protocol.runtime import repair_torchvision


class ImageNetwork(nn.Module):
    """Maps noisy pictures and how noisy they are to pictures: diffusers' UNet2DModel without its output record.

    Parameters
    ----------
    channels : int
        C, of the pictures in and out.
    image_size : int
        Side of the square pictures, divisible by 4.
    width : int
        Channels at full size; twice as many at half, four times as many at quarter size. Divisible by 8.

    Raises
    ------
    ValueError
        If a size does not fit.

    Notes
    -----
    There are three levels, one residual block each. The usual attention at the bottom is left out, as torch cannot
    differentiate its gradient, which sliced and exact score matching do. The last convolution starts at zero, as in
    DDPM's official code. At width 16, 0.62 million parameters.
    """

    def __init__(self, channels: int, image_size: int, width: int):
        super().__init__()
        if image_size % 4 or image_size < 4:
            raise ValueError(f"image_size={image_size} must be a positive multiple of 4")
        if width % 8 or width < 8:
            raise ValueError(f"width={width} must be a positive multiple of 8")
        repair_torchvision()
        from diffusers.models import UNet2DModel  # the extra `generative`; it imports torchvision

        self.unet = UNet2DModel(
            sample_size=image_size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(width, 2 * width, 4 * width),
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            add_attention=False,
            norm_num_groups=8,
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        """Map pictures (B, C, H, W) and their noise levels (B,), numbers from 0 to about 1,000, to (B, C, H, W)."""
        return self.unet(images, level, return_dict=False)[0]
