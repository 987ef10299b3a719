"""The GPU as code sees it: what each generation has (`arch`), its instructions (`device`, `mma`), and where a thread
stands among others (`place`, `odometer`)."""
