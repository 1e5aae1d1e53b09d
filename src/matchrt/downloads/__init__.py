"""Published weights: from their addresses into a folder of the store, whole and with the right digest."""
