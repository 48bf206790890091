"""Networks from images to features; one file is one encoder, found by its name (`semblance.plugins`).

Each file has a frozen `Config` and `build(config)`, which gives a `contracts.Encoder`. Two modules are not
encoders: `_sizing` chooses one for a collection, `_weights` fills one from a safetensors file.
"""
