"""Back ends: the loop IR (`program`), its interpreter and verifier, the code made from it, and its `disk_cache`."""
