"""Pictures and text to the model's ids: `images` (geometry), `siglip_vq` (picture codes), `text` (BPE)."""
