# dlc_embed(TARGET SYMBOL FILE): the bytes of FILE stand in TARGET as
#     extern const unsigned char SYMBOL[], SYMBOL_end[];
# followed by a zero byte, so that text is also a C string.
function(dlc_embed target symbol file)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${symbol}.S)
  file(WRITE ${source}.new ".section .rodata\n.balign 64\n.global ${symbol}\n${symbol}:\n.incbin \"${file}\"\n"
       ".global ${symbol}_end\n${symbol}_end:\n.byte 0\n.section .note.GNU-stack,\"\",@progbits\n")
  configure_file(${source}.new ${source} COPYONLY)
  set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS ${file})
  target_sources(${target} PRIVATE ${source})
endfunction()
