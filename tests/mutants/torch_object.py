"""Faults of a machine as a torch object: copies, states, other fits, gradients, export."""

from mutants import Mutant

OBJECT = "tests/test_torch_object.py"

MUTANTS = [
    Mutant(
        "a copy keeps what its run has made",
        "kl/state.py",
        "if name not in self._of_a_run}",
        "}",
        OBJECT,
    ),
    Mutant(
        "a copy keeps the kernel matrix",
        "kl/fitted.py",
        "| dict.fromkeys(run)",
        "",
        OBJECT,
    ),
    Mutant(
        "a part of a shared machine is copied",
        "kl/state.py",
        "if self.ranks.size > 1 and self.is_fitted and self._shared_rows:",
        "if self.ranks.size > 9:",
        OBJECT,
    ),
    Mutant(
        "a copy from inside an epoch has the norm of the epoch before",
        "kl/general.py",
        "self.sq_norm, self._stepped = self.sq_norm_per_class, False",
        "self._stepped = False",
        OBJECT,
    ),
    Mutant(
        "a state leaves the kernel of the machine that loads it",
        "kl/state.py",
        "        self.kernel = kernel\n        self._load_extra_state",
        "        self._load_extra_state",
        OBJECT,
    ),
    Mutant(
        "a loaded machine shares its tensors with the state",
        "kl/state.py",
        'torch.empty_like(state[name], device="cpu")',
        "state[name]",
        OBJECT,
    ),
    Mutant(
        "centres encoded before a load are used after it",
        "kl/state.py",
        """        self._forget_run()
        self.kernel = kernel""",
        "        self.kernel = kernel",
        OBJECT,
    ),
    Mutant(
        "another fit keeps the bandwidth of the first",
        "kl/state.py",
        "self.kernel = self._given_kernel",
        "pass",
        OBJECT,
    ),
    Mutant(
        "other targets are not other data",
        "kl/fitting.py",
        "same and torch.equal(y[own], self.targets.cpu())",
        "same",
        OBJECT,
    ),
    Mutant(
        "centres of ones own are lost in another fit",
        "kl/general.py",
        "if self._centers_given:",
        "if False:",
        OBJECT,
    ),
    Mutant(
        "other rows of the same shape are fitted from the old weights",
        "kl/general.py",
        "(self._streamed or key == self._data_key)",
        "True",
        OBJECT,
    ),
    Mutant(
        "gradients are lost",
        "kl/expansion.py",
        "if x.requires_grad and torch.is_grad_enabled():",
        "if x.requires_grad and not torch.is_grad_enabled():",
        "tests/test_gradients.py -k machines",
    ),
    Mutant(
        "the gradient at a centre is NaN",
        "kl/kernels/base.py",
        "values = self._profile(torch.where(apart, sq_dist, 1.0))",
        "values = self._profile(sq_dist.clone())",
        "tests/test_gradients.py -k at_itself",
    ),
    Mutant(
        "a gradient that is not finite is passed on",
        "kl/plain.py",
        "    x.register_hook(check)\n",
        "",
        "tests/test_gradients.py -k does_not_exist",
    ),
    Mutant(
        "an exported machine forgets the origin",
        "kl/plain.py",
        "        x = x - self.origin\n",
        "",
        "tests/test_export.py -k far_from",
    ),
    Mutant(
        "an exported machine shares its weights",
        "kl/plain.py",
        "weights.detach().to(centers.dtype, copy=True)",
        "weights.detach()",
        "tests/test_export.py -k of_its_own",
    ),
    Mutant(
        "an exported machine works in tiles of the rows that it has seen",
        "kl/kernels/relu.py",
        "if not pair.plain:",
        "if True:",
        "tests/test_export.py -k exported_graph",
    ),
    Mutant(
        "a loader of (x, y) is refused",
        "kl/evaluated.py",
        "x, y, *index = batch",
        "x, y, index = batch",
        "tests/test_machine.py -k plain_loader",
    ),
]
