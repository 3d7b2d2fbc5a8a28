"""Key maps as data: under which names, and in which form, each tool keeps each network's weights."""
