"""What a Program keeps in memory: `plan` leaves out what nobody reads again, `reorder` and `buffer_sharing` make it
less, `arena` gives places, and `running_sums`, `sweeps`, `recompute`, `chunk` and `budget` make a call fit a limit.
"""
