// What a board would be around the instrument, in simulation: a clock, a reset, and a serial line that is
// the simulator's standard input and output.
`default_nettype none
module serial_shell;
    localparam STDIN = 32'h8000_0000, STDOUT = 32'h8000_0001;

    reg        clk = 1'b0, rst = 1'b1, rx_valid = 1'b0;
    reg  [7:0] rx = 8'd0;
    wire       rx_ready, tx_valid;
    wire [7:0] tx;
    integer    c;

    instrument core (
        .clk(clk), .rst(rst), .rx(rx), .rx_valid(rx_valid), .rx_ready(rx_ready),
        .tx(tx), .tx_valid(tx_valid), .tx_ready(1'b1)
    );

    // One clock; what the core offers before the edge is taken by it.
    task tick;
        begin
            #1;
            if (tx_valid && !rst)
                $fwrite(STDOUT, "%c", tx);
            clk = 1'b1;
            #1 clk = 1'b0;
        end
    endtask

    initial begin
        repeat (2) tick;
        rst = 1'b0;
        #1;
        c = $fgetc(STDIN);
        while (c >= 0) begin
            rx = c[7:0];
            rx_valid = 1'b1;
            tick;
            rx_valid = 1'b0;
            #1;
            while (!rx_ready) tick;
            // No terminal: what is not flushed would wait for the next 4096 bytes.
            $fflush(STDOUT);
            c = $fgetc(STDIN);
        end
        // The peer has left. 0: without a message, which would go to the peer.
        $finish(0);
    end
endmodule
`default_nettype wire
