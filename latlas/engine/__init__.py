"""The training loop: any model that ``Trains`` or ``FitsDirectly``, on any data set."""
