"""Real systemd, real kernels.

The package installed on Debian 12 and 13, in containers and in virtual machines.

`images` builds what is started, `nspawn` starts containers (half a second each, this machine's
kernel), `machine` virtual machines (Debian's own kernels, power cuts). Everything lies in build/vm;
nothing is left running.
"""
