"""`graphc` on the command line: `cli` has the commands, `user_file` runs the user's file, `training_command` and
`image_command` train, and `curve`, `confusion` and `prediction_sheet` draw what came of it (as `svg`)."""
