"""A seeded world of synthetic pedestrians in Market-1501's layout. Needs NumPy, Pillow and tqdm, never torch.

`world` settings and regions · `people` who they are · `body` how they stand · `wardrobe` what they wear · `render`
solids to pixels · `backdrop`, `occluders`, `camera`, `scene` one moment · `develop` its files · `workers`, `write` the
world on disk · `sheet` a picture to look at · `demo` the dashboard's world.
"""

from ccan.data.synthetic.develop import PALETTE, SPLITS, load_label_map
from ccan.data.synthetic.people import Citizen, Person, citizen
from ccan.data.synthetic.sheet import contact_sheet
from ccan.data.synthetic.world import Region, WorldConfig
from ccan.data.synthetic.write import write_world

__all__ = [
    "PALETTE",
    "SPLITS",
    "Citizen",
    "Person",
    "Region",
    "WorldConfig",
    "citizen",
    "contact_sheet",
    "load_label_map",
    "write_world",
]
