"""INT8 that holds: quantise a network so that its masks stay those of its float form, or say that it cannot be done.

    pictures            photographs to calibrate with, and others to judge on
    constant_channels   find constant input channels of convolutions, and take them off exactly
    layers              the operations with weights, and the quantisers in front of them
    resizing            residual sums and resized maps in INT8
    rounding_noise      the rounding noise of each layer beside its signal
    float_layers        leave layers of a quantised network in float
    search              the order of the steps, from all layers in INT8 to "not offered"
    outcome             the steps tried and their figures
    build               does it in a child process: NNCF loads much, and needs memory that only an exit returns
    offer               starts that process, for the importer

Measured on U²-Net, U²-Net-p and IS-Net: networks fall apart in INT8 for two reasons. A channel that is large and the
same everywhere makes the rounding error of its weight exceed the signal; and a few layers have activations with such
long tails that 255 levels are too few.
"""
