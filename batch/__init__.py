"""Many videos as one job: a plan of units, a ledger of what is done, engines that do the rest."""
