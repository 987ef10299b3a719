"""Back ends: the loop IR (`program`), its interpreter and verifier, and the code made from it."""
