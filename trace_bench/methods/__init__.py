"""Score-distillation methods, one file each."""
