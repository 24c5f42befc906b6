"""Real kernels as implementations under test: booted in an emulator, or through a /dev/kvm that works."""
