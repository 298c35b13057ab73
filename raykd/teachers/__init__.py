"""Where a teacher's outputs come from: a live net, or a cache file that all trials on a node share."""
