"""Nodes for ComfyUI. A link to this folder, or a copy of it, in ComfyUI's `custom_nodes` is the whole installation; the
package must be installed in the environment that ComfyUI runs in.
"""

from unimodal_apps.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
